// The mask of an instance, whatever its `mask_encoding`. Header only: include it and link hassod_msgs, nothing else.
//
//   #include <hassod_msgs/masks.hpp>
//   #include <hassod_msgs/msg/instance_array.hpp>
//
//   for (const auto & instance : array.instances) {
//     const hassod_msgs::Mask mask = hassod_msgs::decode_mask(instance);
//     // Pixel (x, y) of the image belongs to the instance: mask.at(x - instance.roi.x_offset, y - instance.roi.y_offset)
//   }
//
// With OpenCV, without a copy: cv::Mat(mask.height, mask.width, CV_8UC1, mask.pixels.data()).

#ifndef HASSOD_MSGS__MASKS_HPP_
#define HASSOD_MSGS__MASKS_HPP_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <vector>

namespace hassod_msgs
{

/// Pixels of an instance's `roi`, row by row: 255 where the instance is, 0 elsewhere.
struct Mask
{
  std::size_t width = 0;
  std::size_t height = 0;
  std::vector<std::uint8_t> pixels;

  /// Whether the instance covers column x and row y of its roi.
  bool at(std::size_t x, std::size_t y) const { return pixels.at(y * width + x) != 0; }
};

namespace detail
{

template<typename Instance>
void read_crop(const Instance & instance, Mask & mask)
{
  const auto & image = instance.mask;
  if (image.width != mask.width || image.height != mask.height || image.step < image.width ||
    image.data.size() < static_cast<std::size_t>(image.step) * (mask.height - 1) + mask.width)
  {
    throw std::invalid_argument("the mask image does not fit the instance's roi");
  }
  for (std::size_t y = 0; y < mask.height; ++y) {
    std::copy_n(image.data.begin() + y * image.step, mask.width, mask.pixels.begin() + y * mask.width);
  }
}

template<typename Instance>
void read_runs(const Instance & instance, Mask & mask)
{
  const std::size_t count = mask.pixels.size();
  std::size_t place = 0;
  bool inside = false;
  for (const std::size_t run : instance.runs) {
    if (run > count - place) {
      throw std::invalid_argument("the runs are longer than the instance's roi");
    }
    for (const std::size_t end = place + run; inside && place < end; ++place) {
      mask.pixels[place % mask.height * mask.width + place / mask.height] = 255;
    }
    place += inside ? 0 : run;
    inside = !inside;
  }
  if (place != count) {
    throw std::invalid_argument("the runs are shorter than the instance's roi");
  }
}

template<typename Instance>
void read_outlines(const Instance & instance, Mask & mask)
{
  const auto & points = instance.outlines;
  const double left = instance.roi.x_offset;
  const long top = instance.roi.y_offset;
  const long height = static_cast<long>(mask.height);
  std::size_t begin = 0;
  for (const std::size_t end : instance.outline_ends) {
    if (end > points.size() || end < begin || (end - begin) % 2) {
      throw std::invalid_argument("outline_ends does not fit the outlines");
    }
    for (std::size_t i = begin; i < end; i += 2) {
      const std::size_t next = i + 2 < end ? i + 2 : begin;
      const double x0 = points[i], x1 = points[next];
      const long y0 = points[i + 1], y1 = points[next + 1];
      // Rows whose centre lies between the ends; what is right of the line changes sides.
      for (long y = std::max(std::min(y0, y1), top); y < std::min(std::max(y0, y1), top + height); ++y) {
        const double crossing = x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) - left;
        const double first = std::max(0.0, std::ceil(crossing - 0.5));
        for (std::size_t x = static_cast<std::size_t>(first); x < mask.width; ++x) {
          mask.pixels[(y - top) * mask.width + x] ^= 255;
        }
      }
    }
    begin = end;
  }
}

}  // namespace detail

/// The mask of a hassod_msgs/Instance; throws std::invalid_argument where its fields do not fit together.
template<typename Instance>
Mask decode_mask(const Instance & instance)
{
  Mask mask;
  mask.width = instance.roi.width;
  mask.height = instance.roi.height;
  if (mask.width == 0 || mask.height == 0) {
    throw std::invalid_argument("the instance's roi is empty");
  }
  mask.pixels.assign(mask.width * mask.height, 0);
  switch (instance.mask_encoding) {
    case Instance::CROP: detail::read_crop(instance, mask); break;
    case Instance::RLE: detail::read_runs(instance, mask); break;
    case Instance::POLYGON: detail::read_outlines(instance, mask); break;
    default: throw std::invalid_argument("mask_encoding is not known; update hassod_msgs");
  }
  return mask;
}

}  // namespace hassod_msgs

#endif  // HASSOD_MSGS__MASKS_HPP_
